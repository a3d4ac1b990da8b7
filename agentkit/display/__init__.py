"""Tables and live views from plain data; knows no domain object."""
