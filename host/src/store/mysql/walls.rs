//! The walls around the login of each app, each looked at now, from inside of a session of that very login.

use sqlx::{Connection, Row};
use tokio::time::timeout;

use super::access::OnRecord;
use super::guests::Seat;
use super::{Error, Mysql, WAIT, classify, roles};
use crate::store::{Fact, Login};

const GRANTS: &str = "SHOW GRANTS";
const SEES: &str = "SELECT CONVERT(schema_name USING utf8mb4) FROM information_schema.schemata";
const SESSIONS: &str = "SELECT CAST(@@SESSION.max_user_connections AS SIGNED)";

/// A wall, and what a guest can do where it does not stand.
struct Wall {
    name: &'static str,
    stands: bool,
    open: String,
}

impl Mysql {
    /// The walls around each app that is known.
    pub(super) async fn walls(&self) -> Result<Vec<Fact>, Error> {
        let mut facts = Vec::new();
        for known in self.access.known(&self.engine).await? {
            for wall in self.walls_of(&known).await? {
                let value = if wall.stands { "stands" } else { "is open" };
                let advice = (!wall.stands).then_some(wall.open);
                facts.push(Fact::new("wall", format!("{}: {}", known.app, wall.name), value, advice));
            }
        }
        Ok(facts)
    }

    async fn walls_of(&self, OnRecord { app, login }: &OnRecord) -> Result<Vec<Wall>, Error> {
        let foreign = self.foreign_tables(app).await?;
        let mut walls = vec![
            Wall {
                name: "login of its own",
                stands: login.as_ref().is_some_and(|login| *login != self.access.engine),
                open:
                    "its guests are the engine's own login: they reach the engine's tables and other apps'; give the \
                       engine's login CREATE USER, or name a login under [apps]"
                        .into(),
            },
            Wall {
                name: "tables",
                stands: foreign.is_empty(),
                open: format!(
                    "what guests write to tables that are not InnoDB stays at a rollback: {}",
                    foreign.join(", ")
                ),
            },
        ];
        let looked = match self.access.login(app, login.clone()) {
            Ok(Some(login)) => timeout(WAIT, self.look_from_inside(app, &login)).await,
            Ok(None) => {
                walls.extend(["rights", "other databases", "connections", "owner"].map(shared));
                return Ok(walls);
            }
            Err(error) => Ok(Err(error)),
        };
        match looked {
            Ok(Ok(seen)) => walls.extend(seen),
            Ok(Err(error)) => walls.push(unseen(&error.to_string())),
            Err(_) => walls.push(unseen("its session takes too long")),
        }
        Ok(walls)
    }

    async fn look_from_inside(&self, app: &str, login: &Login) -> Result<Vec<Wall>, Error> {
        let mut session = self.guests.connect(app, Some(login)).await?;
        let seen = self.look(app, &mut session).await;
        let _ = session.connection.close().await; // It has done its part.
        let mut walls = seen?;
        let names = self.access.names(app);
        if login.name == names.login {
            let owner = self.guests.connect(app, Some(&self.access.ours(names.owner))).await;
            walls.push(Wall {
                name: "owner",
                stands: matches!(owner, Err(Error::Refused(_))),
                open: "the owner of its tables may log in while no migration runs (as now: look again)".into(),
            });
        }
        Ok(walls)
    }

    async fn look(&self, app: &str, session: &mut Seat) -> Result<Vec<Wall>, Error> {
        let to = &mut session.connection;
        let rows = sqlx::query(GRANTS).fetch_all(&mut *to).await.map_err(classify)?;
        let grants: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(classify)?;
        let sees: Vec<String> = sqlx::query_scalar(SEES).fetch_all(&mut *to).await.map_err(classify)?;
        let most: i64 = sqlx::query_scalar(SESSIONS).fetch_one(to).await.map_err(classify)?;
        let database = self.access.names(app).login;
        let own = [database.as_str(), &self.access.database, "information_schema", "performance_schema"];
        let others: Vec<&str> = sees.iter().map(String::as_str).filter(|name| !own.contains(name)).collect();
        let beyond: Vec<&str> = grants
            .iter()
            .map(String::as_str)
            .filter(|grant| !is_ours(grant, &database, &self.access.database))
            .collect();
        Ok(vec![
            Wall {
                name: "rights",
                stands: beyond.is_empty(),
                open: format!("its login may more than it needs: {}", beyond.join("; ")),
            },
            Wall {
                name: "other databases",
                stands: others.is_empty(),
                open: format!("its guests see {}: take the rights on them from everybody", others.join(", ")),
            },
            Wall {
                name: "connections",
                stands: most > 0,
                open: "one app takes all connections: give its login MAX_USER_CONNECTIONS".into(),
            },
        ])
    }
}

/// One that cannot stand where guests have the engine's login.
fn shared(name: &'static str) -> Wall {
    Wall { name, stands: false, open: "it cannot stand without a login of its own".into() }
}

fn unseen(why: &str) -> Wall {
    Wall { name: "rights", stands: false, open: format!("nobody can look, so its messages wait: {why}") }
}

/// Whether a grant is one of those that `app_grants.sql` gives, or none at all.
fn is_ours(grant: &str, database: &str, engine: &str) -> bool {
    let Some((rights, on)) = grant.trim_start_matches("GRANT ").split_once(" ON ") else { return false };
    if grant.contains("WITH GRANT OPTION") {
        return false;
    }
    let Some((on, _)) = on.split_once(" TO ") else { return false };
    let same = |pattern: &str| pattern.replace("\\_", "_").replace("\\%", "%") == roles::identifier(database);
    match rights {
        "USAGE" => true,
        "SELECT, INSERT, UPDATE, DELETE" => on.strip_suffix(".*").is_some_and(same),
        "EXECUTE" => on.strip_prefix("PROCEDURE ").is_some_and(|on| on.starts_with(&roles::identifier(engine))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn what_a_login_needs_is_told_from_more() {
        for grant in [
            "GRANT USAGE ON *.* TO `s_a`@`%` IDENTIFIED BY PASSWORD '*AA' WITH MAX_USER_CONNECTIONS 3",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON `s\\_a`.* TO `s_a`@`%`",
            "GRANT EXECUTE ON PROCEDURE `s`.`ack` TO `s_a`@`%`",
        ] {
            assert!(is_ours(grant, "s_a", "s"), "{grant}");
        }
        for grant in [
            "GRANT SELECT ON *.* TO `s_a`@`%`",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON `s\\_b`.* TO `s_a`@`%`",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON `s\\_a`.* TO `s_a`@`%` WITH GRANT OPTION",
            "GRANT EXECUTE ON PROCEDURE `t`.`ack` TO `s_a`@`%`",
            "GRANT `role` TO `s_a`@`%`",
        ] {
            assert!(!is_ours(grant, "s_a", "s"), "{grant}");
        }
    }
}
