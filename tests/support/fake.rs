//! A server that speaks just enough of PostgreSQL's protocol to refuse everything with one error: for what a real one
//! cannot be brought to do in a test.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Accepts every login, and answers each question with this SQLSTATE and sentence. Returns the URL for it.
pub async fn refusing(sqlstate: &'static str, message: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(refuse(client, sqlstate, message));
        }
    });
    format!("postgres://berth@127.0.0.1:{port}/berth?sslmode=disable")
}

async fn refuse(mut client: TcpStream, sqlstate: &str, message: &str) -> std::io::Result<()> {
    // The first message has no kind: its length, then what the client wants.
    let length = client.read_u32().await?;
    client.read_exact(&mut vec![0; length as usize - 4]).await?;
    let mut welcome = vec![];
    welcome.extend(framed(b'R', &0_u32.to_be_bytes()));
    welcome.extend(framed(b'K', &[0; 8]));
    welcome.extend(ready());
    client.write_all(&welcome).await?;
    loop {
        let kind = client.read_u8().await?;
        let length = client.read_u32().await?;
        client.read_exact(&mut vec![0; length as usize - 4]).await?;
        // A question ends with Sync, or is a simple Query.
        if kind == b'S' || kind == b'Q' {
            let fields = format!("SERROR\0VERROR\0C{sqlstate}\0M{message}\0\0");
            let mut answer = framed(b'E', fields.as_bytes());
            answer.extend(ready());
            client.write_all(&answer).await?;
        }
    }
}

fn ready() -> Vec<u8> {
    framed(b'Z', b"I")
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}
