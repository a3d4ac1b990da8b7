"""One state file per wallet: events in hash chains, and the records they fold into."""
