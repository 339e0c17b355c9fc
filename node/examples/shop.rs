//! A shop with its own pages and an embedded node: its orders are its own type, stay when it is offline, and arrive from its peers.
//!
//! ```sh
//! cargo run --example shop -- ./till 127.0.0.1:8080
//! cargo run --example shop -- ./office 127.0.0.1:8081 PEER      # the address that the first one printed
//! curl -d '{"id":"o-1","item":"tea","pieces":2}' -H 'content-type: application/json' http://127.0.0.1:8080/orders
//! curl http://127.0.0.1:8081/orders
//! ```
//!
//! It builds with `--no-default-features` too: the node needs neither its command line nor its HTTP API here.

use actix_web::error::{ErrorBadRequest, ErrorServiceUnavailable};
use actix_web::{App, HttpResponse, HttpServer, Result, web};
use anabranch_actors::typed::{TypedCollection, TypedError};
use anabranch_node::Node;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: String,
    item: String,
    pieces: u32,
}

type Orders = web::Data<TypedCollection<Order>>;

/// Durable in this shop when it is answered, whether a peer is in reach or not.
async fn take(orders: Orders, order: web::Json<Order>) -> Result<HttpResponse> {
    orders.put(&order).await.map_err(refused)?;
    Ok(HttpResponse::Created().json(order.0))
}

/// Every order, from whichever shop.
async fn all(orders: Orders) -> Result<HttpResponse> {
    let (mut all, mut next) = orders.list(None).await.map_err(refused)?;
    while let Some(after) = next {
        let (page, following) = orders.list(Some(&after)).await.map_err(refused)?;
        all.extend(page);
        next = following;
    }
    Ok(HttpResponse::Ok().json(all))
}

async fn one(orders: Orders, id: web::Path<String>) -> Result<HttpResponse> {
    let order = orders.get(&id).await.map_err(refused)?;
    Ok(order.map_or_else(|| HttpResponse::NotFound().finish(), |order| HttpResponse::Ok().json(order)))
}

fn refused(error: TypedError) -> actix_web::Error {
    match error {
        TypedError::Name(_) | TypedError::Unwritable(_) => ErrorBadRequest(error.to_string()),
        _ => ErrorServiceUnavailable(error.to_string()),
    }
}

#[actix::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(data_dir), Some(http)) = (arguments.next(), arguments.next()) else {
        return Err("usage: shop DATA_DIR HTTP_ADDR [PEER]…".into());
    };
    let builder = Node::builder().data_dir(data_dir).listen("/ip4/127.0.0.1/tcp/0").dataset("primary=");
    let node = arguments.fold(builder, |builder, peer| builder.peer(peer)).start().await?;
    // Registered by the code that needs it: `primary=` above replicates nothing by itself.
    let orders = node.dataset("primary")?.watch_collection::<Order>("orders", |order| order.id.clone()).await?;

    let orders = web::Data::new(orders);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(orders.clone())
            .route("/orders", web::post().to(take))
            .route("/orders", web::get().to(all))
            .route("/orders/{id}", web::get().to(one))
    })
    .workers(1)
    .bind(http)?;
    for address in server.addrs() {
        println!("shop  http://{address}/orders");
    }
    for address in node.page().listen {
        println!("peer  {address}");
    }
    // Until Ctrl-C or SIGTERM, which actix-web listens for; then the node settles what it holds.
    server.run().await?;
    node.stop().await;
    Ok(())
}
