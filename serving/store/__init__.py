"""The service database: keys, history, feedback and jobs. ``database`` reaches it, ``tables`` are what is in it."""
