//! The codec of every call: prost's, with what a message may become in memory checked before it is decoded.

use std::marker::PhantomData;

use bytes::Buf as _;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::bounds;
use crate::status::to_status;

/// Encodes as prost does, and decodes only what [`bounds::check`] lets through.
#[derive(Debug, Clone)]
pub struct BoundedCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for BoundedCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for BoundedCodec<E, D>
where
    E: prost::Message + Send + 'static,
    D: prost::Name + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = BoundedDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<E, D>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<E, D>::default().decoder())
    }
}

/// Decodes messages of one type.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<D>(ProstDecoder<D>);

impl<D: prost::Name + Default> Decoder for BoundedDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // A message lies in one piece: the decoder is called with the whole of it.
        let bytes = buffer.chunk();
        bounds::check::<D>(&bytes[..bytes.len().min(buffer.remaining())]).map_err(|refusal| to_status(&refusal))?;
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
