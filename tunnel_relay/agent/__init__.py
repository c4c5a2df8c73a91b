"""What runs beside the services, dials out, and offers them to its own user's clients."""
