# pragma version ^0.4.3
"""
@title The deposits and claims of x402's batch settlement, for tests only
@notice Ours, small, never audited: no real money. x402's package brings no code of its contract.
        What it takes and answers is as x402's ABI says, the domain and the types likewise, so that
        a voucher that pays here is one that x402's contract would take. Left out: collectors (the
        token is drawn by allowance), claims by signature, contracts as payers (ERC-1271).
"""

interface Token:
    def transfer(to: address, amount: uint256) -> bool: nonpayable
    def transferFrom(payer: address, to: address, amount: uint256) -> bool: nonpayable

struct ChannelConfig:
    payer: address
    payerAuthorizer: address
    receiver: address
    receiverAuthorizer: address
    token: address
    withdrawDelay: uint40
    salt: bytes32

struct Voucher:
    channel: ChannelConfig
    maxClaimableAmount: uint128

struct VoucherClaim:
    voucher: Voucher
    signature: Bytes[65]
    totalClaimed: uint128

struct ChannelState:
    balance: uint128
    totalClaimed: uint128

struct WithdrawalState:
    amount: uint128
    initiatedAt: uint40

struct ReceiverState:
    totalClaimed: uint128
    totalSettled: uint128

MIN_WITHDRAW_DELAY: constant(uint40) = 900
MAX_WITHDRAW_DELAY: constant(uint40) = 2592000
HIGHEST_S: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
CHANNEL_TYPE: constant(bytes32) = keccak256(
    "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
)
VOUCHER_TYPE: constant(bytes32) = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)")
NAME: constant(bytes32) = keccak256("x402 Batch Settlement")
VERSION: constant(bytes32) = keccak256("1")

channels: public(HashMap[bytes32, ChannelState])
pendingWithdrawals: public(HashMap[bytes32, WithdrawalState])
receivers: public(HashMap[address, HashMap[address, ReceiverState]])
refundNonce: public(HashMap[bytes32, uint256])


@internal
@view
def _digest(hashed: bytes32) -> bytes32:
    domain: bytes32 = keccak256(abi_encode(DOMAIN_TYPE, NAME, VERSION, chain.id, self))
    return keccak256(concat(b"\x19\x01", domain, hashed))


@internal
@view
def _channel_id(config: ChannelConfig) -> bytes32:
    return self._digest(keccak256(abi_encode(CHANNEL_TYPE, config)))


@internal
@view
def _voucher_digest(channel: bytes32, amount: uint128) -> bytes32:
    return self._digest(keccak256(abi_encode(VOUCHER_TYPE, channel, amount)))


@external
@view
def getChannelId(config: ChannelConfig) -> bytes32:
    return self._channel_id(config)


@external
@view
def getVoucherDigest(channelId: bytes32, maxClaimableAmount: uint128) -> bytes32:
    return self._voucher_digest(channelId, maxClaimableAmount)


@external
@nonreentrant
def deposit(config: ChannelConfig, amount: uint128, collector: address, collectorData: Bytes[1024]):
    for party: address in [config.payer, config.payerAuthorizer, config.receiver, config.receiverAuthorizer]:
        assert party != empty(address), "InvalidChannel"
    assert MIN_WITHDRAW_DELAY <= config.withdrawDelay, "WithdrawDelayOutOfRange"
    assert config.withdrawDelay <= MAX_WITHDRAW_DELAY, "WithdrawDelayOutOfRange"
    assert amount > 0, "ZeroDeposit"
    self.channels[self._channel_id(config)].balance += amount
    assert extcall Token(config.token).transferFrom(config.payer, self, convert(amount, uint256))


@external
@nonreentrant
def claim(voucherClaims: DynArray[VoucherClaim, 16]):
    assert len(voucherClaims) > 0, "EmptyBatch"
    for one: VoucherClaim in voucherClaims:
        config: ChannelConfig = one.voucher.channel
        assert msg.sender in [config.receiver, config.receiverAuthorizer], "NotAuthorizedToClaim"
        self._claim(one)


@internal
def _claim(one: VoucherClaim):
    config: ChannelConfig = one.voucher.channel
    id: bytes32 = self._channel_id(config)
    state: ChannelState = self.channels[id]
    if one.totalClaimed <= state.totalClaimed:
        return  # as x402's: what was paid already pays nothing, and is no error
    assert one.totalClaimed <= one.voucher.maxClaimableAmount, "ClaimExceedsCeiling"
    assert one.totalClaimed <= state.balance, "ClaimExceedsBalance"
    digest: bytes32 = self._voucher_digest(id, one.voucher.maxClaimableAmount)
    assert self._signer(digest, one.signature) == config.payerAuthorizer, "InvalidSignature"
    self.channels[id].totalClaimed = one.totalClaimed
    self.receivers[config.receiver][config.token].totalClaimed += one.totalClaimed - state.totalClaimed


@internal
@pure
def _signer(digest: bytes32, signature: Bytes[65]) -> address:
    assert len(signature) == 65, "InvalidSignature"
    r: uint256 = extract32(signature, 0, output_type=uint256)
    s: uint256 = extract32(signature, 32, output_type=uint256)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    assert s <= HIGHEST_S, "InvalidSignature"  # of two that are good, the canonical one alone
    signer: address = ecrecover(digest, v, r, s)
    assert signer != empty(address), "InvalidSignature"
    return signer


@external
@nonreentrant
def settle(receiver: address, token: address):
    state: ReceiverState = self.receivers[receiver][token]
    self.receivers[receiver][token].totalSettled = state.totalClaimed
    if state.totalClaimed > state.totalSettled:
        amount: uint256 = convert(state.totalClaimed - state.totalSettled, uint256)
        assert extcall Token(token).transfer(receiver, amount)


@external
@nonreentrant
def initiateWithdraw(config: ChannelConfig, amount: uint128):
    assert msg.sender in [config.payer, config.payerAuthorizer], "InvalidChannel"
    assert amount > 0, "NothingToWithdraw"
    id: bytes32 = self._channel_id(config)
    assert self.pendingWithdrawals[id].initiatedAt == 0, "WithdrawalAlreadyPending"
    assert amount <= self._unclaimed(id), "WithdrawAmountExceedsAvailable"
    self.pendingWithdrawals[id] = WithdrawalState(
        amount=amount, initiatedAt=convert(block.timestamp, uint40)
    )


@external
@nonreentrant
def finalizeWithdraw(config: ChannelConfig):
    assert msg.sender in [config.payer, config.payerAuthorizer], "NotAuthorizedToFinalizeWithdraw"
    id: bytes32 = self._channel_id(config)
    pending: WithdrawalState = self.pendingWithdrawals[id]
    assert pending.initiatedAt != 0, "WithdrawalNotPending"
    ripe: uint256 = convert(pending.initiatedAt, uint256) + convert(config.withdrawDelay, uint256)
    assert block.timestamp >= ripe, "WithdrawDelayNotElapsed"
    self.pendingWithdrawals[id] = empty(WithdrawalState)
    self._give_back(config, min(pending.amount, self._unclaimed(id)))


@external
@nonreentrant
def refund(config: ChannelConfig, amount: uint128):
    assert msg.sender in [config.receiver, config.receiverAuthorizer], "NotAuthorizedToRefund"
    assert amount > 0, "ZeroRefund"
    id: bytes32 = self._channel_id(config)
    self.refundNonce[id] += 1
    given: uint128 = min(amount, self._unclaimed(id))
    pending: WithdrawalState = self.pendingWithdrawals[id]
    if given >= pending.amount:
        self.pendingWithdrawals[id] = empty(WithdrawalState)
    else:
        self.pendingWithdrawals[id].amount = pending.amount - given
    self._give_back(config, given)


@internal
@view
def _unclaimed(id: bytes32) -> uint128:
    return self.channels[id].balance - self.channels[id].totalClaimed


@internal
def _give_back(config: ChannelConfig, amount: uint128):
    self.channels[self._channel_id(config)].balance -= amount
    if amount > 0:
        assert extcall Token(config.token).transfer(config.payer, convert(amount, uint256))
