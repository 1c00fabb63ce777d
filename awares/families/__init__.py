"""The model families that awares ships; `awares.family` says what a family is."""
