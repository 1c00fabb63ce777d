"""From two answers to a label and target crops: judges, grounding and the chat client that they use."""
