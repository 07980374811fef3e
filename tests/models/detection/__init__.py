"""Tests of the detector heads."""
