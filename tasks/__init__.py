"""Luigi tasks: parameters, requirements, fingerprints, engines. No algorithm lives here."""
