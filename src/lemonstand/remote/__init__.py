"""How hosts of a site are reached, read and asked: connections, facts, probes, and the endpoints that a site's model names."""
