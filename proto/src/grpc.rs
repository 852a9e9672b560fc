use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Where a request or an answer is written, which grows as it has to. Most have some hundred bytes.
const ENCODE_BUFFER_BYTES: usize = 512;
/// None: what has come is known when there is room made for it, and its fields share that room for as long as one of them lives.
const DECODE_BUFFER_BYTES: usize = 0;
/// A stream's messages are sent once they have so many bytes, as tonic does.
const YIELD_THRESHOLD_BYTES: usize = 32 * 1_024;

/// How RPCs are written and read: protobuf, with buffers of the size of what is in them. Tonic's own have 8 KiB, four for each call.
#[derive(Debug)]
pub struct GrpcCodec<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> Default for GrpcCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for GrpcCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(ENCODE_BUFFER_BYTES, YIELD_THRESHOLD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(DECODE_BUFFER_BYTES, YIELD_THRESHOLD_BYTES))
    }
}
