"""The dashboard: one page that shows a cluster as it is and as it changes; served on the loopback interface alone."""
