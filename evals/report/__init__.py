"""The report of runs: ``build`` makes its figures, ``html`` and ``markdown`` show them."""
