"""A chain in this process with a contract that pays vouchers: what x402's would, for nothing.

py-evm runs it, without a network; its first block has the contract, of
``voucher_settlement.vy``, at the address that x402 deploys its own at on every chain, because
x402's package signs for no other. The contract is ours, and only for tests: the package has the
ABI of its own, through which ours is called here, and no code of it. Tokens, of
``voucher_token.vy``, have six decimals and no worth.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import vyper
from eth_tester import EthereumTester, PyEVMBackend
from eth_utils.address import to_canonical_address, to_checksum_address
from web3 import EthereumTesterProvider, Web3
from x402.mechanisms.evm.batch_settlement import BATCH_SETTLEMENT_ADDRESS
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.facilitator.claim import build_voucher_claim_args
from x402.mechanisms.evm.batch_settlement.facilitator.utils import to_contract_channel_config
from x402.mechanisms.evm.batch_settlement.utils import coerce_bytes32

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eth_account.signers.local import LocalAccount
    from web3.contract.contract import Contract, ContractFunction
    from x402.mechanisms.evm.batch_settlement import ChannelConfig, VoucherClaim

# py-evm raises it twelvefold, for the whole process, so that contracts can call each other deeply.
# Ours do not, and strangers' nested JSON must still meet an error instead of the end of the stack.
sys.setrecursionlimit(1000)

FOLDER: Final = Path(__file__).parent
TOKEN: Final = to_checksum_address("0x" + "70" * 20)
COLLECTOR: Final = to_checksum_address("0x" + "c0" * 20)
"""That draws deposits; x402's contract asks one, ours ignores it."""
ETHER: Final = 10**18
"""For gas."""


@cache
def compiled(name: str) -> dict[str, Any]:
    """Return the run-time code and the ABI of a contract beside this file."""
    source = (FOLDER / f"{name}.vy").read_text()
    return dict(vyper.compile_code(source, output_formats=["bytecode_runtime", "abi"]))


class VoucherChain:
    """A chain of its own, with the contract, the token and some accounts.

    Args:
        accounts: who can send transactions.

    Attributes:
        network: its name, as vouchers are signed for it.
        token: address of the token.
    """

    def __init__(self, accounts: Sequence[LocalAccount]) -> None:
        settlement = _state(code=compiled("voucher_settlement")["bytecode_runtime"])
        token = _state(code=compiled("voucher_token")["bytecode_runtime"])
        self._tester = EthereumTester(
            PyEVMBackend(
                genesis_state={
                    to_canonical_address(BATCH_SETTLEMENT_ADDRESS): settlement,
                    to_canonical_address(TOKEN): token,
                    **{to_canonical_address(one.address): _state(ETHER) for one in accounts},
                }
            )
        )
        for one in accounts:
            self._tester.add_account(Web3.to_hex(one.key))
        web3 = Web3(EthereumTesterProvider(self._tester))
        web3.eth.default_account = to_checksum_address(accounts[0].address)  # who reads
        self.network = f"eip155:{web3.eth.chain_id}"
        self.token = TOKEN
        self._web3 = web3
        self._contract: Contract = web3.eth.contract(
            BATCH_SETTLEMENT_ADDRESS, abi=BATCH_SETTLEMENT_ABI
        )
        self._token: Contract = web3.eth.contract(TOKEN, abi=compiled("voucher_token")["abi"])

    def mint(self, to: str, amount: int) -> None:
        """Make tokens."""
        _send(self._token.functions.mint(to, amount), to)

    def tokens(self, of: str) -> int:
        """Return how many tokens an address has."""
        return int(self._token.functions.balanceOf(of).call())

    def deposit(self, config: ChannelConfig, amount: int) -> None:
        """Move tokens of the payer into a channel."""
        _send(self._token.functions.approve(BATCH_SETTLEMENT_ADDRESS, amount), config.payer)
        call = self._contract.functions.deposit(_form(config), amount, COLLECTOR, b"")
        _send(call, config.payer)

    def claim(self, claims: Sequence[VoucherClaim], by: str) -> None:
        """Let the contract owe a payee what vouchers say."""
        _send(self._contract.functions.claim(build_voucher_claim_args(list(claims))), by)

    def settle(self, payee: str) -> None:
        """Pay what is owed."""
        _send(self._contract.functions.settle(payee, TOKEN), payee)

    def ask_back(self, config: ChannelConfig, amount: int, by: str) -> None:
        """Begin the payer's withdrawal."""
        _send(self._contract.functions.initiateWithdraw(_form(config), amount), by)

    def take_back(self, config: ChannelConfig, by: str) -> None:
        """End the payer's withdrawal."""
        _send(self._contract.functions.finalizeWithdraw(_form(config)), by)

    def refund(self, config: ChannelConfig, amount: int, by: str) -> None:
        """Let the payee give back what it did not claim."""
        _send(self._contract.functions.refund(_form(config), amount), by)

    def state(self, channel_id: str) -> tuple[int, int]:
        """Return what was deposited in a channel and not given back, and what of it was claimed."""
        balance, claimed = self._contract.functions.channels(coerce_bytes32(channel_id)).call()
        return int(balance), int(claimed)

    def channel_id(self, config: ChannelConfig) -> str:
        """Return how the contract names a channel."""
        return str(Web3.to_hex(self._contract.functions.getChannelId(_form(config)).call()))

    def wait(self, seconds: int) -> None:
        """Let the chain's time pass."""
        now_s = self._web3.eth.get_block("latest")["timestamp"]
        self._tester.time_travel(now_s + seconds)


def _send(call: ContractFunction, sender: str) -> None:
    call.transact({"from": to_checksum_address(sender)})


def _form(config: ChannelConfig) -> tuple[Any, ...]:
    return tuple(to_contract_channel_config(config))


def _state(balance: int = 0, code: str = "0x") -> dict[str, Any]:
    return {"balance": balance, "nonce": 0, "code": bytes.fromhex(code[2:]), "storage": {}}
