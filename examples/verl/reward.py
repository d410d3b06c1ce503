"""The outcome: is the last number that the model wrote the right one? (verl's contract of a reward function.)"""

import re


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """1.0 or 0.0. `solution_str` holds the whole response, tool text included: only the last turn is read."""
    last_turn = re.split(r"<\|im_start\|>assistant|\nassistant\n", solution_str)[-1]
    return float(re.findall(r"\d+", last_turn)[-1:] == [str(ground_truth)])
