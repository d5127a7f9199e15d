"""What looking costs, as history grows: requests to the store and CPU seconds."""
