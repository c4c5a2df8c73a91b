"""What is wrong with an upstream, a client or an agent, and what to do about it: stage by stage."""
