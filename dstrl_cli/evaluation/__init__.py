"""Episodes of a policy: during training, and afterwards of a stored one."""
