"""What reaches an agent's services through a relay."""
