"""What YARN says and is asked: its configuration, its ResourceManager, and what follows from the answers (pure)."""
