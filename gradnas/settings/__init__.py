"""Settings that programs and the command line share, known without torch."""
