"""The ways out: one transport per kind of upstream behind one interface, and failover between them."""
