"""What is kept in a target's staging store, and the way there."""
