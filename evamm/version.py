"""The version of evamm, its only home: `setup.py` reads it from here."""

__version__ = '0.1.0'
