"""Calorimeter showers: the CaloChallenge file format and evaluation, and a parametrised default data set."""
