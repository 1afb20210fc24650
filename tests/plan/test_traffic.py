import dataclasses
import math

from cdc_flower.plan.memory import Holds
from cdc_flower.plan.traffic import advice, bytes_of_a_round, seconds_of_a_round
from cdc_flower.setting import MESSAGE_BYTES

CDC, LORA = Holds(distils=True), Holds(trains=True, batch=8, lessons=100)


def test_budgets_bound_what_goes_up_and_down(planned):
    found = bytes_of_a_round(planned(CDC, uplink_budget=5000, downlink_budget=3000))
    assert found.up == 5000
    assert 3000 < found.down < 4000
    free = bytes_of_a_round(planned(CDC, uplink_budget=0, downlink_codec="fp16"))
    assert free.up > 5000
    assert free.down > found.down


def test_a_budget_may_be_a_share_of_the_adapter(planned):
    run = planned(CDC, downlink_budget=0.1)
    assert bytes_of_a_round(run).down == int(0.2 * run.student.parts.adapter) + MESSAGE_BYTES


def test_what_suits_a_small_student_alone_is_said(planned):
    assert advice(planned(CDC, downlink_budget=3000, cloud_lr=5e-3)) == []
    (rate,) = advice(planned(CDC, downlink_budget=3000, cloud_lr=0.1))
    assert "cloud.lr = 0.1" in rate
    (share,) = advice(planned(CDC, downlink_budget=0.001, cloud_lr=1e-3))
    assert "an update will carry less than 20 %" in share
    assert advice(planned(CDC, downlink_budget=0.001, downlink_codec="fp16", cloud_lr=1e-3)) == []
    assert advice(planned(LORA, cloud_lr=0.1)) == []


def test_weights_travel_in_two_bytes_and_nothing_where_nothing_adapts(planned):
    run = planned(LORA)
    assert 2 * run.student.parts.adapter < bytes_of_a_round(run).up < 2 * run.student.parts.adapter + 2000
    every = planned(dataclasses.replace(LORA, full=True))
    assert bytes_of_a_round(every).down > 2 * every.student.parts.language
    assert bytes_of_a_round(planned(Holds())) == bytes_of_a_round(planned(Holds(), run_devices=9))
    assert bytes_of_a_round(planned(Holds())).up == 0


def test_of_what_a_device_keeps_to_itself_messages_alone_travel(planned):
    found = bytes_of_a_round(planned(dataclasses.replace(LORA, shares=False)))
    assert found.up == found.down == MESSAGE_BYTES


def test_changes_through_a_codec_stay_within_the_budgets(planned):
    found = bytes_of_a_round(
        planned(dataclasses.replace(LORA, coded=True), uplink_budget=900, downlink_budget=500)
    )
    assert (found.up, found.down) == (900, 500 + MESSAGE_BYTES)


def test_slower_profiles_take_longer_and_training_takes_longest(planned):
    def of(holds, **more):
        return {
            s.profile: s for s in seconds_of_a_round(planned(holds, fleet_mix="pi4=50%,laptop=50%", **more))
        }

    answering, training = of(CDC), of(LORA)
    assert answering["pi4"].work > answering["laptop"].work
    assert training["pi4"].work > 2 * answering["pi4"].work
    assert answering["pi4"].total > answering["pi4"].up > 0


def test_a_model_that_fits_no_profile_is_said_to_be_too_big(planned):
    found = seconds_of_a_round(planned(CDC, fleet_mix="pi4=100%", fleet_cost_model="llava-1.5-7b"))
    assert [(s.compression, s.work) for s in found] == [("", math.inf)]
