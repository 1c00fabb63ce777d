"""Builds the configured environment, reward, judge and grounding, and plays episodes.

The modules, by purpose:

settings   seams, parts, family
episodes   environment, reward, play
labels     answers, judge, verdicts, correctness, grounding, box_reply, box_units, labeller
endpoints  chat_client, rate_limit, prompt_file, asking, spoken
figures    ratios, flops
"""
