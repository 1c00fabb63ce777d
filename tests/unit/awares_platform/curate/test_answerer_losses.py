from awares_platform.curate.losses import Losses


def test_each_answerer_may_be_lost_a_number_of_times_an_hour() -> None:
    losses = Losses(1)
    assert losses.lost("a1") == "" and losses.lost("a2") == ""
    line = "the process of an answerer has died; another one answers its shard"
    assert losses.lines() == [line, line]
    assert losses.lost("a1").startswith("the process of an answerer died 2 times within an hour")
    assert losses.lines() == []
