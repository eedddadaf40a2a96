"""The third note's claims on wallets, proofs and a market; the rest are in notebook 05."""

from __future__ import annotations

from typing import Final

from shoestring.report.service_claims import Claim

_RESALE: Final = "swarm/test_ledger_resale.py"
_SIMULATION: Final = "swarm/test_simulation.py"

ECONOMY_CLAIMS: Final = (
    Claim(
        "Each device has its own wallet or is linked to the user's",
        "holds",
        "A device earns into an account of its own key, and an attestation that both keys sign "
        "says whose it is; one owner at a time.",
        (
            "swarm/test_wallet.py::test_an_ownership_needs_both_keys",
            "swarm/test_wallet.py::test_a_device_elsewhere_is_linked_in_three_steps",
        ),
    ),
    Claim(
        "Devices earn small rewards by staying active and serving",
        "in part",
        "A pool's sum is shared out by uptime that two others attest, and by work. Who signs "
        "receipts with a friend for work that never was takes a part of it from all others: the "
        "attacks above have a simulated collusion. No signature shows it.",
        (
            "swarm/test_uptime.py::test_rewards_go_by_what_was_attested",
            "swarm/test_ledger.py::test_a_reward_is_shared_out_exactly",
            f"{_SIMULATION}::test_who_signs_for_nothing_takes_rewards_from_all_others",
        ),
    ),
    Claim(
        "A request costs by its input and output tokens",
        "holds",
        "And by the layers that each went through at each node. Tokens are positions that both "
        "ends count on the wire, so a prompt that is called one token is paid as a prompt.",
        (
            "swarm/test_receipts_steps.py::test_one_position_of_a_step_is_output_and_the_others_are_input",
            "swarm/test_bill.py::test_what_it_did_cost_is_never_more_than_what_it_may",
        ),
    ),
    Claim(
        "Hashes and signatures of the contributing devices prove who contributed",
        "in part",
        "They prove that both ends saw the same bytes, and what one stage gave out the next was "
        "given. Whether it was computed rightly no signature proves: windows are run again "
        "elsewhere. Two that lie together are believed; it costs them alone.",
        (
            "swarm/test_receipts.py::test_any_other_byte_is_refused",
            "swarm/test_receipts.py::test_what_one_stage_gives_out_the_next_is_given",
            "swarm/test_audit_real.py::test_a_cheat_is_found_replaced_and_not_paid",
        ),
    ),
    Claim(
        "Each node sets its price",
        "holds",
        "In a signed quote that runs out within a day, and again in the terms of each session, "
        "which it refuses below its price.",
        (
            "swarm/test_quotes.py::test_a_quote_holds_from_when_it_was_made_until_it_runs_out",
            "swarm/test_receipts.py::test_terms_are_the_nodes_price_or_none",
        ),
    ),
    Claim(
        "Users say what they pay and wait at most, and the network routes to the most suitable",
        "in part",
        "The cheapest or the fastest route within the limits is found, with a bound on how much "
        "better another could be and a reason for each node that was not taken. Users find it "
        "themselves: there is no network that does. Laying a model's layers does not follow it "
        "yet.",
        (
            "swarm/test_routing.py::test_the_route_of_a_star_is_the_best_of_all",
            "swarm/test_market_reasons.py::test_each_reason_has_its_words",
            "docs/swarm-market.md",
        ),
    ),
    Claim(
        "The network prefers devices that are near",
        "in part",
        "Where they are faster, because they are: no other preference is needed.",
        (
            "swarm/test_routing.py::test_near_nodes_are_taken_only_where_they_are_faster",
            f"{_SIMULATION}::test_users_in_a_local_network_are_served_by_it_more_than_others",
        ),
    ),
    Claim(
        "Users add funds to their wallets",
        "in part",
        "Credits are those of a book that somebody keeps and everybody can verify. What they are "
        "funded with is outside of it; no real money was ever moved here.",
        (
            "swarm/test_wallet.py::test_credits_are_funded_held_earned_collected_and_verified",
            "swarm/test_ledger_verify.py::test_any_change_of_any_byte_of_an_entry_is_found",
        ),
    ),
    Claim(
        "They use them, or sell on to Web2 or Web3 users",
        "in part",
        "Uses of the gateway's keys are booked at cost and margin, each once. To somebody with a "
        "wallet on a chain goes a voucher, tried on a chain in the tests' process alone.",
        (
            f"{_RESALE}::test_the_gateways_log_is_booked_once_however_often_it_is_read",
            "swarm/test_voucher_chain.py::test_three_answers_are_paid_by_the_last_voucher",
        ),
    ),
    Claim(
        "It works with a blockchain",
        "in part",
        "It works without: receipts, a hash-chained book and audits need none. Vouchers are the "
        "way out, in the form of an existing scheme.",
        ("docs/decisions/0007-receipts-of-two-hands.md", "docs/swarm-vouchers.md"),
    ),
)
