"""One vocabulary for everything that is checked: what was asked, what was found, how bad it is, what helps."""
