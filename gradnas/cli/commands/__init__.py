"""What each command takes: its options, their help, and where the work is; known without torch."""
