"""From two answers to a label and target crops: judges, groundings and their chat client."""
