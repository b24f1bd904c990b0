"""A cloud on this machine for developers and tests: an object store that speaks Google's protocol, and more to come."""
