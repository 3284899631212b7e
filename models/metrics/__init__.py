"""How good networks are: metrics that several of them share."""
