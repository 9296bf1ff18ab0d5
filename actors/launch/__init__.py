"""Jobs of plain scripts: `actors launch` starts a script once for each rank, on this machine or on paired devices."""
