from awares_platform.curate.losses import Losses


def test_each_answerer_may_be_lost_a_number_of_times_an_hour() -> None:
    losses = Losses(1)
    assert losses.lost("a1") == "" and losses.lost("a2") == ""
    line = "the process of an answerer has died; another one answers its shard"
    assert losses.lines() == [line, line]
    assert losses.lost("a1").startswith("the process of an answerer died 2 times within an hour")
    assert losses.lines() == []


def test_a_shard_may_lose_its_labelling_process_a_number_of_times_an_hour() -> None:
    losses = Losses(1)
    assert [losses.begun(shard) for shard in ("p0", "p1", "p0")] == ["", "", ""]
    assert losses.lines() == ["the process that labels p0 has died; another one labels the shard"]
    assert losses.begun("p0").startswith("the process that labels p0 died 2 times within an hour")
