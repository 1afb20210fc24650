import dataclasses
import math

from cdc_flower.plan.memory import Holds
from cdc_flower.plan.traffic import bytes_of_a_round, seconds_of_a_round

CDC, LORA = Holds(distils=True), Holds(trains=True, batch=8, lessons=100)


def test_budgets_bound_what_goes_up_and_down(planned):
    found = bytes_of_a_round(planned(CDC, uplink_budget=5000, downlink_budget=3000))
    assert found.up == 5000
    assert 3000 < found.down < 4000
    free = bytes_of_a_round(planned(CDC, uplink_budget=0, downlink_codec="fp16"))
    assert free.up > 5000
    assert free.down > found.down


def test_weights_travel_in_two_bytes_and_nothing_where_nothing_adapts(planned):
    run = planned(LORA)
    assert 2 * run.student.parts.adapter < bytes_of_a_round(run).up < 2 * run.student.parts.adapter + 2000
    every = planned(dataclasses.replace(LORA, full=True))
    assert bytes_of_a_round(every).down > 2 * every.student.parts.language
    assert bytes_of_a_round(planned(Holds())) == bytes_of_a_round(planned(Holds(), run_devices=9))
    assert bytes_of_a_round(planned(Holds())).up == 0


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
