"""AWS Session Manager: the data channel as a Trio stream, and the control calls through boto3."""
