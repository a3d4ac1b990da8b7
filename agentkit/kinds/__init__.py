"""One file for each kind of work: everything that is particular to it stands there."""
