"""Builds the configured environment, reward, judge and grounding, and plays episodes.

    settings   seams, parts, family
    episodes   environment, reward, play, ratios, flops
    labels     answers, judge, verdicts, correctness, grounding, box_reply, box_units, labeller
    endpoints  chat_client, rate_limit, prompt_file, asking, spoken

Each word on the left is a purpose, and its modules follow.
"""
