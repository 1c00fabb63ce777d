"""Builds the parts of the method that the configuration names, and plays episodes.

seams        imports and checks a part that a user names as `module:attribute`
parts        checks all parts that a job uses, before anything starts
family       builds the model family of the policy
environment  builds the environment, which offers crops, and the settings of an episode
reward       builds the reward of an episode
play         plays many episodes at once on one engine
answers      asks the base policy for its answers at low and at full resolution
judge        compares the two answers to a sample
grounding    locates the evidence for an answer in the image
labeller     derives a sample's label and target crops from the two answers
chat_client  asks a chat endpoint, for an LLM judge and for a grounding model
"""
