"""The model families that awares ships. `awares.family` defines what a family is."""
