//! gRPC over containerd's socket: any method of any of its services, with protobuf's messages.

use std::{fmt, marker::PhantomData, path::Path, time::Duration};

use bytes::{Buf, BufMut};
use protobuf::Message;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// For one call: a stop has a grace of its own.
const LIMIT: Duration = Duration::from_secs(300);
/// containerd answers an ExecSync with so much of each stream.
const ANSWER_BYTES_MAX: usize = 40 << 20;
/// CRI's own, for calls of containerd's other services.
const NAMESPACE: &str = "k8s.io";

/// See the module.
#[derive(Clone)]
pub struct Client(Grpc<Channel>);

impl fmt::Debug for Client {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Client")
    }
}

impl Client {
    /// Of the containerd that serves there.
    /// # Errors
    /// Nobody serves.
    pub async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
        Ok(Client(Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)))
    }

    /// "StopContainer" of CRI's runtime service.
    /// # Errors
    /// containerd's.
    pub async fn cri<Q: Message, A: Message>(&self, method: &str, request: Q) -> Result<A, Status> {
        self.call(&format!("/runtime.v1.RuntimeService/{method}"), request).await
    }

    /// A method by its whole name.
    /// # Errors
    /// containerd's.
    pub async fn call<Q: Message, A: Message>(&self, method: &str, message: Q) -> Result<A, Status> {
        let mut grpc = self.0.clone();
        let call = async {
            ready(&mut grpc).await?;
            grpc.unary(request(message), path(method), Messages(PhantomData)).await
        };
        let answer = tokio::time::timeout(LIMIT, call).await;
        answer.unwrap_or_else(|_| panic!("{method} is not answered")).map(tonic::Response::into_inner)
    }

    /// A method that answers for ever.
    /// # Errors
    /// containerd's.
    pub async fn listen<Q: Message, A: Message>(
        &self,
        method: &str,
        message: Q,
    ) -> Result<Streaming<A>, Status> {
        let mut grpc = self.0.clone();
        ready(&mut grpc).await?;
        let answer = grpc.server_streaming(request(message), path(method), Messages(PhantomData)).await?;
        Ok(answer.into_inner())
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

fn request<Q>(message: Q) -> Request<Q> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", NAMESPACE.parse().expect("a word"));
    request
}

fn path(method: &str) -> PathAndQuery {
    method.parse().expect("a path")
}

/// Messages as gRPC frames hold them.
struct Messages<Q, A>(PhantomData<(Q, A)>);

impl<Q: Message, A: Message> Codec for Messages<Q, A> {
    type Encode = Q;
    type Decode = A;
    type Encoder = Messages<Q, A>;
    type Decoder = Messages<Q, A>;

    fn encoder(&mut self) -> Self {
        Messages(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Messages(PhantomData)
    }
}

impl<Q: Message, A: Message> Encoder for Messages<Q, A> {
    type Item = Q;
    type Error = Status;

    fn encode(&mut self, message: Q, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message.write_to_bytes().map_err(|error| Status::internal(error.to_string()))?);
        Ok(())
    }
}

impl<Q: Message, A: Message> Decoder for Messages<Q, A> {
    type Item = A;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<A>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        A::parse_from_bytes(&bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
