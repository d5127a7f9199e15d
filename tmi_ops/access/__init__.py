"""Who may do what: the guide's roles as declared state, compared with the server and brought about."""
