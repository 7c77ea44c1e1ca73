"""The wire, pinned: a name or number that moves here breaks every gateway that is already out there.

The table is written from the contract, not from the .proto file: one line per field, as in the contract's own tables.
"""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor

from backend.wire import backend_pb2

MESSAGES = {
    "HealthMessage": "",
    "Reply": "1 bytes message",
    "Result": "1 string message, 2 bool success",
    "StatusResponse": "1 State state, 2 MemoryUsageData memory",
    "MemoryUsageData": "1 uint64 total, 2 map<string,uint64> breakdown",
    "ModelOptions": """
        1 string Model, 2 int32 ContextSize, 3 int32 Seed, 4 int32 NBatch, 9 bool LowVRAM, 12 int32 NGPULayers,
        13 string MainGPU, 15 int32 Threads, 21 string ModelFile, 28 bool CUDA, 36 string LoraAdapter,
        40 string Quantization, 50 float GPUMemoryUtilization, 51 bool TrustRemoteCode, 52 bool EnforceEager,
        53 int32 SwapSpace, 55 int32 TensorParallelSize, 56 string FlashAttention, 59 string ModelPath,
        60 repeated string LoraAdapters, 62 repeated string Options, 67 string DType, 73 string EngineArgs""",
    "TranscriptRequest": """
        2 string dst, 3 string language, 4 uint32 threads, 5 bool translate, 6 bool diarize, 7 string prompt,
        8 float temperature, 9 repeated string timestamp_granularities, 10 bool stream, 11 string ModelIdentity""",
    "TranscriptResult": """
        1 repeated TranscriptSegment segments, 2 string text, 3 string language, 4 float duration, 5 bool eou""",
    "TranscriptSegment": """
        1 int32 id, 2 int64 start, 3 int64 end, 4 string text, 5 repeated int32 tokens, 6 string speaker,
        7 repeated TranscriptWord words""",
    "TranscriptWord": "1 int64 start, 2 int64 end, 3 string text",
    "TranscriptStreamResponse": "1 string delta, 2 TranscriptResult final_result",
    "TranscriptLiveRequest": "1 TranscriptLiveConfig config, 2 TranscriptLiveAudio audio",
    "TranscriptLiveConfig": "1 string language, 2 int32 sample_rate, 3 map<string,string> params",
    "TranscriptLiveAudio": "1 repeated float pcm",
    "TranscriptLiveResponse": """
        1 bool ready, 2 string delta, 3 bool eou, 4 repeated TranscriptWord words, 5 TranscriptResult final_result,
        6 bool eob""",
}

METHODS = {
    "Health": "HealthMessage -> Reply",
    "LoadModel": "ModelOptions -> Result",
    "AudioTranscription": "TranscriptRequest -> TranscriptResult",
    "AudioTranscriptionStream": "TranscriptRequest -> stream TranscriptStreamResponse",
    "AudioTranscriptionLive": "stream TranscriptLiveRequest -> stream TranscriptLiveResponse",
    "Status": "HealthMessage -> StatusResponse",
    "Free": "HealthMessage -> Result",
}

SCALARS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def type_of(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.name)
    if field.message_type is not None:
        return str(field.message_type.name)
    return SCALARS[field.type]


def line_of(field: FieldDescriptor) -> str:
    """A field as the contract's tables write it."""
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        kind = f"map<{type_of(entry.fields_by_name['key'])},{type_of(entry.fields_by_name['value'])}>"
    else:
        kind = ("repeated " if field.is_repeated else "") + type_of(field)
    return f"{field.number} {kind} {field.name}"


def lines_in(table: str) -> list[str]:
    """The table's lines; a comma inside map<,> has no space behind it and separates nothing."""
    return [line for line in " ".join(table.split()).split(", ") if line]


def test_the_package_and_the_service_are_the_ones_the_gateway_calls() -> None:
    assert backend_pb2.DESCRIPTOR.package == "backend"
    assert list(backend_pb2.DESCRIPTOR.services_by_name) == ["Backend"]


def test_there_are_no_messages_but_the_contracts() -> None:
    assert set(backend_pb2.DESCRIPTOR.message_types_by_name) == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_has_the_contracts_number_type_and_name(name: str) -> None:
    fields = backend_pb2.DESCRIPTOR.message_types_by_name[name].fields
    assert sorted(map(line_of, fields)) == sorted(lines_in(MESSAGES[name]))


def test_the_states_have_the_contracts_numbers() -> None:
    assert dict(backend_pb2.StatusResponse.State.items()) == {"UNINITIALIZED": 0, "BUSY": 1, "READY": 2, "ERROR": -1}


def test_a_live_request_holds_either_a_config_or_audio() -> None:
    (payload,) = backend_pb2.TranscriptLiveRequest.DESCRIPTOR.oneofs
    assert payload.name == "payload"
    assert [field.name for field in payload.fields] == ["config", "audio"]


def test_live_audio_is_packed() -> None:
    """Four bytes a sample: an unpacked list would be a quarter larger, and is what proto2 would give."""
    assert backend_pb2.TranscriptLiveAudio.DESCRIPTOR.fields_by_name["pcm"].is_packed


def test_every_method_takes_gives_and_streams_what_the_contract_says() -> None:
    methods = backend_pb2.DESCRIPTOR.services_by_name["Backend"].methods
    written = {
        method.name: f"{'stream ' if method.client_streaming else ''}{method.input_type.name} -> "
        f"{'stream ' if method.server_streaming else ''}{method.output_type.name}"
        for method in methods
    }
    assert written == METHODS


def test_fields_of_a_wider_contract_are_skipped() -> None:
    """The gateway's messages hold more than this file knows: field 99, a string, behind one that we read."""
    wider = backend_pb2.ModelOptions(Model="m").SerializeToString() + b"\x9a\x06\x01x"
    assert backend_pb2.ModelOptions.FromString(wider).Model == "m"
