"""What a rank is answered on its stream."""

from __future__ import annotations

from pathwatch.server.engine.streams import Ack
from pathwatch.v1 import routing_pb2


def response_of(ack: Ack) -> routing_pb2.StreamRoutingResponse:
    """The message that carries an acknowledgement."""
    return routing_pb2.StreamRoutingResponse(
        acked_sequence=ack.sequence,
        rejections=[
            routing_pb2.Rejection(
                sequence=rejected.sequence,
                code=rejected.refusal.code,
                message=rejected.refusal.message,
                field=rejected.refusal.field,
                sample_id=rejected.refusal.sample_id,
            )
            for rejected in ack.rejected
        ],
        advice=[
            routing_pb2.SamplingAdvice(
                group=advice.group, until_step=advice.until_step, hash_threshold=advice.threshold
            )
            for advice in ack.advice
        ],
        accepted_observations=ack.accepted,
        late_observations=ack.late,
        plan=None
        if ack.plan is None
        else routing_pb2.SamplingPlan(window_steps=ack.plan.window_steps, capacity=ack.plan.capacity),
        requests=[
            routing_pb2.SampleRequest(
                group=request.group,
                until_step=request.until_step,
                round=request.round,
                through=request.through,
            )
            for request in ack.requests
        ],
    )
