"""`actors bench`: what calls and collectives cost in this cluster."""
