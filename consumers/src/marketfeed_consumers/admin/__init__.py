"""Commands beside `run`: migrate, rebuild, retain, reset-offsets, and the audit."""
