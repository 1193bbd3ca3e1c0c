"""What is measured, a module a task: those of photos run on Inspect AI, ``serving`` is a load generator of its own."""
