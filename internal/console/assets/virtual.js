// The virtual machine's page: a vending machine that is drawn here, keeps its
// codes in this browser, and speaks MQTT over a WebSocket. Its rules are in
// virtual-rules.js, its words in the page.
"use strict";

(() => {
	const root = document.getElementById("vm");
	if (!root) {
		return;
	}
	const data = JSON.parse(document.getElementById("machine-data").textContent);
	const texts = JSON.parse(document.getElementById("machine-texts").textContent);
	const el = (id) => document.getElementById("vm-" + id);
	const now = () => Date.now();
	const calm = matchMedia("(prefers-reduced-motion: reduce)");

	const uplink = "/server/app";
	const downlink = "/clients/" + data.no;
	const url = (location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/mqtt";
	const patience = 10_000;
	const retryEvery = 5_000;
	const heartbeatEvery = 5 * 60_000;
	const lasting = 60_000; // what a connection must stand for the next to be tried at once
	const logMax = 200; // lines

	// text is a sentence of the page with values in its places.
	function text(key, ...values) {
		return (texts[key] ?? key).replace(/%\[(\d)\]s/g, (_, n) => values[n - 1] ?? "");
	}

	// Times are those where the machine stands.
	const inZone = (options) => new Intl.DateTimeFormat(texts.lang, { timeZone: data.zone, hourCycle: "h23", ...options });
	const minute = inZone({ hour: "2-digit", minute: "2-digit" });
	const second = inZone({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
	const dayOf = new Intl.DateTimeFormat("sv", { timeZone: data.zone, year: "numeric", month: "2-digit", day: "2-digit" }); // 2026-12-31
	const untilText = (at) => (dayOf.format(at) === dayOf.format(now()) ? minute.format(at) : dayOf.format(at) + " " + minute.format(at));
	const spaced = (code) => code.slice(0, 4) + " " + code.slice(4);
	const countdown = (ms) => {
		const s = Math.max(0, Math.ceil(ms / 1000));
		return Math.floor(s / 60) + ":" + String(s % 60).padStart(2, "0");
	};

	function make(name, className, content) {
		const e = document.createElement(name);
		if (className) {
			e.className = className;
		}
		if (content !== undefined) {
			e.textContent = content;
		}
		return e;
	}

	function picture(shape, className) {
		const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
		svg.setAttribute("class", className);
		svg.setAttribute("viewBox", "0 0 48 64");
		svg.setAttribute("aria-hidden", "true");
		const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
		use.setAttribute("href", "#vm-" + shape);
		svg.append(use);
		return svg;
	}

	// ---- What the browser keeps. A machine that was deleted and made again under
	// the same number is another one.

	const place = "scrip.machine." + data.no + "." + data.created;

	// One tab runs the machine: two would each vend for the same code. Whoever
	// finds that another has written since stops.
	const store = {
		last: null,
		load() {
			this.last = localStorage.getItem(place);
			return this.last;
		},
		save(next) {
			if (localStorage.getItem(place) !== this.last) {
				stopHere();
				throw new Error("another tab has written what this machine knows");
			}
			localStorage.setItem(place, next);
			this.last = next;
		},
	};

	const kept = {
		get(name) {
			try {
				return localStorage.getItem(place + "." + name) ?? "";
			} catch {
				return "";
			}
		},
		set(name, value) {
			try {
				if (value === "") {
					localStorage.removeItem(place + "." + name);
				} else {
					localStorage.setItem(place + "." + name, value);
				}
			} catch {
				// The machine says that it is out of order: it needs more than this.
			}
		},
	};

	// ---- The log of what goes over the wire.

	let lines = 0;

	// line adds one, that opens if it has parts. Its marks may change as the
	// answer comes.
	function line(direction, kind, gist, opens) {
		const item = make("li", "vm-line " + direction);
		const summary = make(opens ? "summary" : "div", "vm-sum");
		const arrow = make("span", "vm-arrow", { up: "↑", down: "↓", local: "·" }[direction]);
		arrow.title = text(direction);
		arrow.setAttribute("aria-label", text(direction));
		arrow.setAttribute("role", "img");
		const mark = make("span", "vm-marks");
		summary.append(make("time", "vm-mono", second.format(now())), arrow, make("span", "vm-kind vm-mono", kind), mark, make("span", "vm-gist", gist));
		const details = make(opens ? "details" : "div");
		details.append(summary);
		item.append(details);
		el("log").prepend(item);
		while (el("log").children.length > logMax) {
			el("log").lastChild.remove();
		}
		lines++;
		count();
		return {
			item,
			details,
			// mark shows a word; of one kind there is one.
			mark(name, className, word) {
				let m = mark.querySelector("[data-mark=" + name + "]");
				if (!m) {
					m = make("span");
					m.dataset.mark = name;
					mark.append(m);
				}
				m.className = "vm-mark " + className;
				m.textContent = word;
			},
		};
	}

	function count() {
		el("count").textContent = lines ? text("entries", String(lines)) : "";
		el("nothing").hidden = el("log").children.length > 0;
	}

	// control is a line of the protocol below the messages.
	function control(direction, kind, gist, className = "") {
		const l = line(direction, kind, gist, false);
		l.item.classList.add("vm-control");
		if (className) {
			l.item.classList.add(className);
		}
	}

	// message is a line with a signed message, and all its parts.
	function message(direction, topic, payload, decoded) {
		const method = decoded.members.get("method") ?? "";
		const l = line(direction, method.replace(/^client\./, "") || "PUBLISH", gistOf(method, decoded), true);
		const good = decoded.form !== "";
		l.mark("sign", good ? "good" : "bad", (good ? "✓ " : "✗ ") + text(good ? "signed" : "bad"));
		const parts = make("div", "vm-parts");
		const part = (title, ...content) => {
			parts.append(make("h3", "", title), ...content);
		};
		l.details.append(parts);
		// Most lines are never opened: their parts are made when one is.
		l.details.addEventListener("toggle", () => {
			part(text("part_topic"), make("p", "vm-mono", topic + " · QoS 1 · " + machineRules.utf8.encode(payload).length + " B"));
			if (decoded.members.size > 0) {
				const table = make("table");
				for (const [name, value] of decoded.members) {
					const row = make("tr");
					const head = make("th", "vm-mono", name);
					head.scope = "row";
					row.append(head, make("td", "vm-mono", value));
					table.append(row);
				}
				part(text("part_members"), table);
				const percent = decoded.form === "percent-encoded" || (!good && data.percent);
				part(text("part_form"), make("p", "", (decoded.base64 ? "Base64" : "JSON") + " · " + text(percent ? "form_percent" : "form_raw")));
				const signed = make("pre", "vm-mono", machineRules.signedText(decoded.members, percent));
				signed.append(make("mark", "", text("part_key")));
				part(text("part_signed"), signed);
			}
			part(text("part_payload"), make("pre", "vm-mono", payload));
		}, { once: true });
		return l;
	}

	function gistOf(method, decoded) {
		const m = decoded.members;
		switch (method) {
		case "client.pickup_codes.create": {
			const p = decoded.pickup;
			return p ? text("gist_create", spaced(p.code), String(p.quantity), productName(p.product), untilText(p.expires)) : "";
		}
		case "client.pickup_codes.delete":
			return text("gist_delete", m.get("id") ?? "");
		case "client.pickup_codes.put":
			return text("gist_put", m.get("id") ?? "");
		case "client.heartbeat":
			return text("gist_heartbeat", m.get("uptime_minutes_today") ?? "");
		default:
			return "";
		}
	}

	// ---- The front: slots and what is in them.

	const names = new Map(data.products.map((p) => [p.id, p.name]));
	const productName = (id) => names.get(id) ?? text("unknown_product", id);
	const slots = new Map(); // by product id

	// shapeOf goes by the product's name, where that says something.
	function shapeOf(p) {
		const words = [
			["riceball", /rice ?ball|onigiri|饭团|飯團|おにぎり/i],
			["cup", /coffee|latte|noodle|ramen|yog|cup|咖啡|拿铁|泡面|方便面|酸奶|コーヒー|ラテ|ヨーグルト|カップ|麺/i],
			["carton", /milk|soy|牛奶|豆浆|豆奶|牛乳|ミルク|豆乳/i],
			["bar", /bar\b|chocolate|candy|gum|巧克力|糖|チョコ|バー|ガム|キャンディ/i],
			["bag", /chip|crisp|cookie|biscuit|snack|nut|bread|薯片|饼干|零食|坚果|面包|チップ|クッキー|ビスケット|スナック|パン/i],
			["can", /cola|coke|soda|beer|juice|can\b|可乐|雪碧|汽水|啤酒|果汁|コーラ|サイダー|ビール|ジュース/i],
			["bottle", /water|tea|drink|lemonade|水|茶|饮料|ドリンク|ウォーター/i],
		];
		const found = words.find(([, word]) => word.test(p.name));
		const rest = ["box", "bag", "carton"];
		return found ? found[0] : rest[hash(p.name) % rest.length];
	}

	function hueOf(p) {
		const words = [[2, /green|绿|緑|抹茶/i], [0, /red|红|赤|cola|可乐|コーラ/i], [3, /water|水|ウォーター|blue|蓝|青/i], [1, /orange|橙|橘|みかん|オレンジ/i], [6, /cookie|coffee|chocolate|咖啡|巧克力|饼干|コーヒー|チョコ|クッキー/i]];
		const found = words.find(([, word]) => word.test(p.name));
		return found ? found[0] : hash(p.id + p.name) % 8;
	}

	function hash(s) {
		return Array.from(s).reduce((h, c) => (h * 31 + c.codePointAt(0)) % 1_000_003, 7);
	}

	// arrange gives each slot its place: by letter and number where all slots are
	// named so, else one after another.
	function arrange() {
		const order = new Intl.Collator("en", { numeric: true });
		const products = [...data.products].sort((a, b) => order.compare(a.slot, b.slot));
		const named = products.map((p) => /^([A-Za-z])[- ]?([0-9]{1,2})$/.exec(p.slot));
		const widest = Math.max(0, ...named.map((m) => (m ? Number(m[2]) : 99)));
		const rows = new Map();
		if (widest <= 6 && named.every((m) => m[2] !== "0")) {
			products.forEach((p, i) => {
				const [, letter, number] = named[i];
				const row = rows.get(letter.toUpperCase()) ?? [];
				rows.set(letter.toUpperCase(), row);
				(row[number - 1] ??= []).push(p);
			});
		} else {
			products.forEach((p, i) => {
				const row = rows.get(Math.floor(i / 4)) ?? [];
				rows.set(Math.floor(i / 4), row);
				row.push([p]);
			});
		}
		const list = [...rows.values()];
		const columns = Math.max(3, ...list.map((row) => row.length));
		while (list.length < 3) {
			list.push([]);
		}
		el("shelves").classList.add("vm-columns-" + columns);
		for (const row of list) {
			for (let i = 0; i < columns; i++) {
				el("shelves").append(slot(row[i]?.[0]));
				// A second product of the same slot is vended from there too.
				row[i]?.slice(1).forEach((p) => slots.set(p.id, slots.get(row[i][0].id)));
			}
		}
	}

	function slot(p) {
		const item = make("li", "vm-slot");
		if (!p) {
			item.classList.add("vm-bare");
			item.setAttribute("aria-hidden", "true");
			item.append(make("div", "vm-bay"), make("div", "vm-rail"), make("div", "vm-name", "\u00a0"));
			return item;
		}
		const bay = make("div", "vm-bay vm-hue-" + hueOf(p));
		const shape = shapeOf(p);
		bay.append(picture(shape, "vm-item vm-third"), picture(shape, "vm-item vm-second"), picture(shape, "vm-item vm-first"));
		const rail = make("div", "vm-rail");
		const tag = make("span", "vm-tag vm-mono", p.slot);
		rail.append(tag);
		item.append(bay, rail, make("div", "vm-name", p.name));
		item.title = text("slot", p.slot, p.name);
		slots.set(p.id, { item, bay, rail, shape, hue: hueOf(p) });
		return item;
	}

	// showWaiting lights the tags of the slots that codes wait for.
	function showWaiting() {
		const codes = machine ? machine.codes() : [];
		for (const s of new Set(slots.values())) {
			s.waiting = 0;
		}
		for (const c of codes) {
			const s = slots.get(c.product);
			if (s) {
				s.waiting++;
			}
		}
		for (const s of new Set(slots.values())) {
			s.item.classList.toggle("vm-lit", s.waiting > 0);
			let said = s.rail.querySelector(".vm-hidden");
			if (!said) {
				said = make("span", "vm-hidden");
				s.rail.append(said);
			}
			said.textContent = s.waiting > 0 ? text("waiting_codes", String(s.waiting)) : "";
		}
		el("codes").textContent = machine ? String(codes.length) : "–";
		const left = machine ? machine.unreported() : 0;
		el("unreported").textContent = machine ? String(left) : "–";
		el("unreported").classList.toggle("vm-due", left > 0);
	}

	// ---- The display and the keypad.

	let typed = "";
	let serving = false; // goods are on their way
	let resting; // the timer that brings the welcome back
	let broken = false;

	function show(title, hint = "", mood = "") {
		el("screen").className = "vm-screen" + (mood ? " vm-" + mood : "");
		el("message").textContent = title;
		el("hint").textContent = hint;
	}

	// say shows something and has it read out.
	function say(title, hint = "", mood = "") {
		show(title, hint, mood);
		el("live").textContent = hint ? title + ". " + hint : title;
	}

	function digits() {
		const boxes = el("digits").children;
		for (let i = 0; i < 8; i++) {
			boxes[i].textContent = typed[i] ?? "";
			boxes[i].classList.toggle("vm-next", i === typed.length);
		}
		el("digits").setAttribute("aria-label", texts.entered + ": " + typed.split("").join(" "));
	}

	function welcome() {
		clearTimeout(resting);
		resting = undefined;
		typed = "";
		digits();
		prompt();
	}

	function prompt() {
		const until = machine ? machine.pausedUntil() : 0;
		if (until) {
			show(text("no_paused"), text("no_paused_hint", countdown(until - now())), "no");
		} else if (typed.length === 8) {
			show(text("ok_hint"));
		} else {
			show(text("enter"), text("enter_hint"));
		}
	}

	function restAfter(ms) {
		clearTimeout(resting);
		resting = setTimeout(welcome, ms);
	}

	function press(key) {
		if (serving || broken) {
			return;
		}
		const button = document.querySelector(`.vm-keys [data-key="${key}"]`);
		button.classList.add("vm-down");
		setTimeout(() => button.classList.remove("vm-down"), 120);
		if (key === "ok") {
			enter();
			return;
		}
		if (key === "clear") {
			welcome();
			return;
		}
		if (resting && el("screen").classList.contains("vm-no")) {
			typed = ""; // what was refused gives way to the next try
		}
		if (typed.length < 8) {
			typed += key;
		}
		digits();
		prompt();
		restAfter(30_000);
	}

	function enter() {
		let pickup;
		try {
			pickup = machine.enter(typed);
		} catch (e) {
			refuse(e);
			return;
		}
		showWaiting();
		vend(pickup);
	}

	function refuse(e) {
		if (!(e instanceof machineRules.Wrong)) {
			outOfOrder(e);
			return;
		}
		switch (e.reason) {
		case "digits":
			say(text("no_digits"), text("enter_hint"), "no");
			break;
		case "used":
			say(text("no_used"), text("no_expired_hint"), "no");
			break;
		case "expired":
			say(text("no_expired"), text("no_expired_hint"), "no");
			break;
		case "unknown":
			say(text("no_unknown"), text("no_unknown_hint", String(e.left)), "no");
			break;
		case "paused":
			say(text("no_paused"), text("no_paused_hint", countdown(e.until - now())), "no");
			break;
		default:
			return; // somebody is being served
		}
		restAfter(5_000);
	}

	// outOfOrder is shown where the browser keeps nothing. Nothing was vended.
	function outOfOrder(e) {
		if (broken) {
			return;
		}
		console.error(e);
		say(text("broken"), text("broken_store"), "no");
		restAfter(15_000);
	}

	// vend moves the goods. The code is used by now, whatever happens.
	async function vend(p) {
		serving = true;
		clearTimeout(resting);
		clearTray();
		const name = productName(p.product);
		el("live").textContent = text("vending", String(p.quantity), name);
		const s = slots.get(p.product);
		for (let i = 1; i <= p.quantity; i++) {
			show(text("vending", String(p.quantity), name), text("vending_hint", String(i), String(p.quantity)), "yes");
			await drop(s);
			land(s);
		}
		machine.done();
		serving = false;
		typed = "";
		digits();
		say(text("take"), text("take_hint"), "yes");
		restAfter(8_000);
		link.wake();
		showWaiting();
	}

	const pause = (ms) => new Promise((done) => setTimeout(done, ms));

	// drop lets the first of a slot fall behind the glass.
	async function drop(s) {
		if (!s || calm.matches) {
			await pause(300);
			return;
		}
		s.item.scrollIntoView({ block: "nearest" });
		const first = s.bay.querySelector(".vm-first");
		const from = first.getBoundingClientRect();
		const glass = el("glass").getBoundingClientRect();
		const falling = make("div", "vm-falling vm-hue-" + s.hue);
		falling.append(picture(s.shape, ""));
		falling.style.left = from.left - glass.left + "px";
		falling.style.top = from.top - glass.top + "px";
		falling.style.width = from.width + "px";
		falling.style.height = from.height + "px";
		const far = glass.bottom - from.top + 8;
		el("glass").append(falling);
		s.item.classList.add("vm-turning");
		first.classList.add("vm-gone");
		await falling.animate([
			{ transform: "none", easing: "ease-in-out" },
			{ transform: "translateY(3px) scale(1.08)", offset: 0.4, easing: "cubic-bezier(.5,0,.9,.5)" },
			{ transform: `translateY(${far}px) scale(1.08) rotate(9deg)` },
		], { duration: 750 }).finished.catch(() => {});
		falling.remove();
		first.classList.remove("vm-gone");
		s.item.classList.remove("vm-turning");
	}

	// land puts it into the hatch.
	function land(s) {
		const piece = make("span", "vm-piece vm-hue-" + (s ? s.hue : 7));
		piece.append(picture(s ? s.shape : "box", ""));
		el("tray").append(piece);
		el("hatch").disabled = false;
		el("hatch").classList.add("vm-full");
		el("flap").textContent = text("hatch_take");
	}

	function clearTray() {
		el("tray").replaceChildren();
		el("hatch").disabled = true;
		el("hatch").classList.remove("vm-full");
		el("flap").textContent = text("hatch");
	}

	// ---- The link to the broker.

	const link = {
		client: null,
		state: "",
		attempts: 0, // since a connection lasted
		since: 0, // when the connection was made
		nextAt: 0, // when the next attempt is due
		timer: undefined,
		password: root.dataset.password || kept.get("password"),
		busy: false, // reporting
		queue: Promise.resolve(), // one uplink at a time
		puback: null, // the last one: { messageId, reasonCode }

		set(state) {
			this.state = state;
			status();
		},

		start() {
			clearTimeout(this.timer);
			if (!machine || broken) {
				return;
			}
			if (cable.out) {
				this.set("unplugged");
			} else if (this.password === "") {
				this.set("login");
			} else {
				this.connect();
			}
		},

		// cut ends the connection as a loss of network does: without goodbye, so
		// that the broker publishes the last will.
		cut() {
			clearTimeout(this.timer);
			const client = this.client;
			this.client = null;
			client?.end(true);
		},

		connect() {
			this.set("connecting");
			const client = mqtt.connect(url, {
				protocolVersion: 5,
				clientId: data.no,
				username: data.no,
				password: this.password,
				// The server knows what the machine should hold and sends it: nothing is
				// left to a broker's memory.
				clean: true,
				keepalive: 60,
				connectTimeout: patience,
				reconnectPeriod: 0,
				resubscribe: false,
				timerVariant: "native",
				properties: { receiveMaximum: 16, maximumPacketSize: machineRules.messageMax + 1024 },
				will: { topic: uplink, qos: 1, retain: false, payload: machine.encode(machine.offline("connection lost or machine switched off")) },
			});
			this.client = client;
			control("up", "CONNECT", text("gist_connect", data.no));
			const mine = (f) => (...values) => {
				if (this.client === client) {
					f(...values);
				}
			};
			let answered = false;
			let lost = false;

			// The client acknowledges a message once the callback is called: when
			// what it says is kept.
			client.handleMessage = (packet, done) => {
				if (this.client !== client || lost) {
					return;
				}
				blink();
				try {
					hear(packet);
				} catch (e) {
					lost = true;
					outOfOrder(e);
					setTimeout(mine(() => {
						client.end(true);
					}), retryEvery); // so that this does not become a storm
					return;
				}
				done();
			};
			client.on("packetreceive", mine((packet) => {
				if (packet.cmd === "puback") {
					this.puback = packet;
				}
			}));
			client.on("connect", mine(() => {
				answered = true;
				this.since = now();
				control("down", "CONNACK", text("gist_connected"));
				this.listen(client);
			}));
			client.on("disconnect", mine((packet) => {
				control("down", "DISCONNECT", packet.reasonCode === 0x8e ? text("gist_taken") : text("gist_ended", "0x" + (packet.reasonCode ?? 0).toString(16)), "vm-trouble");
			}));
			client.on("error", mine((e) => {
				if (!answered && Number.isInteger(e.code) && e.code >= 128) {
					answered = true;
					control("down", "CONNACK", text("gist_refused", (e.message || "0x" + e.code.toString(16)).replace(/^Connection refused: /, "")), "vm-trouble");
					if (e.code === 134 || e.code === 135) { // trying again does not help, and counts as guessing
						this.cut();
						kept.set("password", "");
						this.password = "";
						this.set("refused");
					}
				}
			}));
			client.on("close", mine(() => {
				this.client = null;
				client.end(true);
				if (!answered) {
					control("local", "—", text("gist_no_answer", url), "vm-trouble");
				} else if (this.state === "online") {
					control("local", "—", text("gist_lost"), "vm-trouble");
				}
				if (this.since && now() - this.since >= lasting) {
					this.attempts = 0;
				}
				this.since = 0;
				this.later();
			}));
		},

		// later tries again: at once at first, then after a quarter of a second that
		// doubles up to half a minute; and a random part of that, so that a fleet
		// does not come back in one moment.
		later() {
			this.attempts++;
			const longest = this.attempts === 1 ? 0 : Math.min(30_000, 250 * 2 ** Math.min(this.attempts - 2, 10));
			const wait = longest / 2 + Math.random() * (longest / 2);
			this.nextAt = now() + wait;
			this.timer = setTimeout(() => this.start(), wait);
			this.set("waiting");
		},

		listen(client) {
			control("up", "SUBSCRIBE", text("gist_subscribe", downlink));
			client.subscribe(downlink, { qos: 1 }, (e, granted) => {
				if (this.client !== client) {
					return;
				}
				if (e || granted?.some((g) => g.qos >= 128)) {
					control("down", "SUBACK", text("gist_refused", e?.message ?? ""), "vm-trouble");
					client.end(true);
					return;
				}
				control("down", "SUBACK", text("gist_connected"));
				this.set("online");
				this.heartbeat();
				this.wake();
			});
		},

		heartbeat() {
			if (this.state === "online") {
				this.say(machine.heartbeat(uptimeToday())).catch(() => {});
			}
		},

		// wake reports the uses that the broker does not know of. One that it does
		// not acknowledge is reported again a little later.
		async wake() {
			if (this.busy || this.state !== "online") {
				return;
			}
			this.busy = true;
			try {
				for (let use = machine.nextReport(); use && this.state === "online"; use = machine.nextReport()) {
					await this.say(machine.put(use));
					machine.reported(use);
					showWaiting();
				}
			} catch {
				// The line in the log says so.
			} finally {
				this.busy = false;
			}
		},

		// say publishes a message and returns once the broker has it. One that the
		// broker took and threw away, for want of a listener, it does not have.
		say(members) {
			const said = this.queue.then(() => this.publish(members));
			this.queue = said.catch(() => {});
			return said;
		},

		publish(members) {
			const client = this.client;
			if (!client || this.state !== "online") {
				return Promise.reject(new Error("not connected"));
			}
			const payload = machine.encode(members);
			const decoded = machineRules.decode(machineRules.utf8.encode(payload));
			decoded.form = machineRules.verify(decoded.members, data.app_key);
			const l = message("up", uplink, payload, decoded);
			l.mark("ack", "wait", text("pending"));
			blink();
			return new Promise((done, failed) => {
				let settled = false;
				const settle = (e) => {
					if (settled) {
						return;
					}
					settled = true;
					clearTimeout(timer);
					client.off("close", gone);
					l.mark("ack", e ? "bad" : "over", text(e ? "unacked" : "acked"));
					if (e) {
						failed(e);
					} else {
						done();
					}
				};
				const gone = () => settle(new Error("connection lost"));
				const timer = setTimeout(() => settle(new Error("no acknowledgement")), patience);
				client.on("close", gone);
				client.publish(uplink, payload, { qos: 1 }, (e) => {
					const nobody = this.puback?.messageId === id && this.puback.reasonCode === 16;
					settle(e ?? (nobody ? new Error("no server listens at the broker") : null));
				});
				const id = client.getLastMessageId();
			});
		},
	};

	function hear(packet) {
		const result = machine.receive(packet.payload);
		const l = message("down", packet.topic, new TextDecoder().decode(packet.payload), result);
		if (result.outcome === "dropped") {
			l.mark("did", "bad", text("dropped"));
			l.item.classList.add("vm-trouble");
			l.item.querySelector(".vm-gist").textContent = text("why_" + result.reason, result.detail);
		} else {
			l.mark("did", "over", text("did_" + result.outcome));
		}
		if (result.outcome === "again") {
			link.wake();
		}
		showWaiting();
	}

	const started = now();

	// uptimeToday is the whole minutes since the machine's midnight, or since it
	// was switched on if that was later.
	function uptimeToday() {
		const part = Object.fromEntries(second.formatToParts(now()).map((p) => [p.type, p.value]));
		const today = Number(part.hour) * 60 + Number(part.minute);
		return Math.max(0, Math.min(today, Math.floor((now() - started) / 60_000)));
	}

	let dimming;
	function blink() {
		el("led-busy").classList.add("vm-on");
		clearTimeout(dimming);
		dimming = setTimeout(() => el("led-busy").classList.remove("vm-on"), 160);
	}

	// status shows how the link does.
	function status() {
		const s = link.state;
		const kind = { online: "live", connecting: "wait", waiting: "wait", refused: "bad" }[s] ?? "over";
		const word = { waiting: "offline" }[s] ?? s;
		el("state").className = "state " + kind;
		el("state").textContent = text(word);
		el("state-detail").textContent = {
			online: () => text("online_detail", minute.format(link.since), url),
			waiting: () => text("waiting_detail", url, String(Math.max(0, Math.ceil((link.nextAt - now()) / 1000)))),
			unplugged: () => text("unplugged_detail"),
			login: () => text("login_detail"),
			refused: () => text("refused_detail"),
			elsewhere: () => text("elsewhere_hint"),
		}[s]?.() ?? "";
		el("screen-link").textContent = (s === "online" ? "● " : "○ ") + text(s === "online" ? "online" : "offline");
		el("screen-link").classList.toggle("vm-on", s === "online");
		el("led-link").classList.toggle("vm-on", s === "online");
		const asks = s === "login" || s === "refused";
		el("login").hidden = !asks;
		el("password-hint").hidden = !asks;
	}

	// ---- The cable: pulled with the pointer, or by the button.

	const cable = {
		out: kept.get("unplugged") !== "",
		home: { x: 403, y: 48 }, // in the jack
		floor: { x: 268, y: 84 }, // where it lies
		at: null,
		frame: 0,

		draw() {
			const { x, y } = this.at;
			const pull = Math.max(0, (x - 120) / 280);
			// From under the machine along the floor and up to the plug.
			const d = `M76-4C70 40 74 ${100 - pull * 6} 130 97S${x - 110} ${y + 40 - pull * 6} ${x - 26} ${y}`;
			el("wire-line").setAttribute("d", d);
			el("wire-shade").setAttribute("d", d);
			el("plug").setAttribute("transform", `translate(${x} ${y})`);
		},

		// glide moves the plug to where it is to be.
		glide(to) {
			cancelAnimationFrame(this.frame);
			if (calm.matches || !this.at) {
				this.at = { ...to };
				this.draw();
				return;
			}
			const from = { ...this.at };
			let begun;
			const step = (t) => {
				begun ??= t;
				const part = Math.min(1, (t - begun) / 180);
				const eased = 1 - (1 - part) ** 3;
				this.at = { x: from.x + (to.x - from.x) * eased, y: from.y + (to.y - from.y) * eased };
				this.draw();
				if (part < 1) {
					this.frame = requestAnimationFrame(step);
				}
			};
			this.frame = requestAnimationFrame(step);
		},

		// set is what pulling it out and plugging it in does.
		set(out) {
			if (out === this.out) {
				return;
			}
			this.out = out;
			kept.set("unplugged", out ? "1" : "");
			this.label();
			if (broken) {
				return;
			}
			if (out) {
				const connected = link.state === "online" || link.state === "connecting";
				link.cut();
				if (connected) {
					control("local", "—", text("gist_pulled"), "vm-trouble");
				}
				link.set("unplugged");
			} else {
				link.attempts = 0;
				link.start();
			}
			el("live").textContent = el("state").textContent + ". " + el("state-detail").textContent;
		},

		label() {
			el("unplug").textContent = text(this.out ? "plug" : "unplug");
			el("cable").classList.toggle("vm-out", this.out);
		},

		toggle() {
			this.set(!this.out);
			this.glide(this.out ? this.floor : this.home);
		},

		begin() {
			this.at = { ...(this.out ? this.floor : this.home) };
			this.draw();
			this.label();
			el("unplug").addEventListener("click", () => this.toggle());
			const plug = el("plug");
			const point = (e) => new DOMPoint(e.clientX, e.clientY).matrixTransform(el("cable").getScreenCTM().inverse());
			let held = null;
			plug.addEventListener("pointerdown", (e) => {
				if (e.button !== 0) {
					return;
				}
				cancelAnimationFrame(this.frame);
				plug.setPointerCapture(e.pointerId);
				const p = point(e);
				held = { dx: this.at.x - p.x, dy: this.at.y - p.y, moved: false };
				plug.classList.add("vm-held");
			});
			plug.addEventListener("pointermove", (e) => {
				if (!held) {
					return;
				}
				const p = point(e);
				const x = Math.max(150, Math.min(this.home.x, p.x + held.dx));
				const y = Math.max(20, Math.min(86, p.y + held.dy));
				held.moved ||= Math.hypot(x - this.at.x, y - this.at.y) > 3;
				// In the jack it slides straight out, and the contact breaks on the way.
				this.at = { x, y: this.out ? y : this.home.y };
				if (!this.out && x < this.home.x - 26) {
					this.set(true);
				}
				this.draw();
			});
			const release = () => {
				if (!held) {
					return;
				}
				const { moved } = held;
				held = null;
				plug.classList.remove("vm-held");
				if (!moved) {
					this.toggle();
					return;
				}
				const near = Math.hypot(this.at.x - this.home.x, this.at.y - this.home.y) < 34;
				this.set(!near);
				this.glide(near ? this.home : { x: Math.min(this.at.x, 330), y: this.floor.y });
			};
			plug.addEventListener("pointerup", release);
			plug.addEventListener("pointercancel", release);
		},
	};

	// ---- Other tabs: the newest runs the machine.

	const channel = "BroadcastChannel" in window ? new BroadcastChannel(place) : null;

	function stopHere() {
		if (broken) {
			return;
		}
		broken = true;
		link.cut();
		link.set("elsewhere");
		clearTimeout(resting);
		say(text("elsewhere"), text("elsewhere_hint"), "no");
		offer(text("here"), () => location.reload());
	}

	function offer(label, action) {
		el("again").textContent = label;
		el("again").hidden = false;
		el("again").addEventListener("click", action, { once: true });
	}

	// ---- Switching it on.

	let machine = null;

	function switchOn() {
		const sizes = Array.from({ length: 8 }, () => make("span"));
		el("digits").append(...sizes);
		arrange();
		clock();
		try {
			machine = new machineRules.Machine({
				no: data.no, appKey: data.app_key, percent: data.percent, base64: data.base64, now, store,
			});
			machine.forget();
		} catch (e) {
			cable.begin();
			machine = null;
			broken = true;
			link.set("");
			showWaiting();
			const unreadable = e instanceof machineRules.Wrong;
			say(text("broken"), text(unreadable ? "broken_memory" : "broken_store"), "no");
			if (unreadable) {
				offer(text("start_anew"), () => {
					localStorage.removeItem(place);
					location.reload();
				});
			}
			return;
		}
		channel?.postMessage("mine");
		channel?.addEventListener("message", stopHere);
		welcome();
		showWaiting();
		cable.begin();
		link.start();
		setInterval(() => link.heartbeat(), heartbeatEvery);
		setInterval(work, retryEvery);
		setInterval(tick, 1_000);
	}

	function work() {
		if (broken) {
			return;
		}
		try {
			machine.forget();
		} catch (e) {
			outOfOrder(e);
			return;
		}
		showWaiting();
		link.wake();
	}

	// tick moves what shows seconds.
	function tick() {
		clock();
		if (broken) {
			return;
		}
		if (link.state === "waiting") {
			status();
		}
		if (!serving && !resting) {
			prompt();
		}
	}

	function clock() {
		el("clock").textContent = minute.format(now());
	}

	// Pointers don't take the focus, so that Enter stays the machine's OK.
	for (const button of document.querySelectorAll(".vm-keys button")) {
		button.addEventListener("mousedown", (e) => e.preventDefault());
		button.addEventListener("click", () => press(button.dataset.key));
	}

	document.addEventListener("keydown", (e) => {
		const at = e.target;
		if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || e.isComposing ||
			document.querySelector("dialog[open]") || at.closest?.("input, textarea, select")) {
			return;
		}
		if (/^[0-9]$/.test(e.key)) {
			press(e.key);
		} else if (e.key === "Escape" || e.key === "Backspace") {
			press("clear");
		} else if (e.key === "Enter" && !at.closest?.("a, button, summary")) {
			press("ok");
		} else {
			return;
		}
		e.preventDefault();
	});

	// When a code was made, it is the machine that keys are for, and not what opened
	// the form.
	document.getElementById("make")?.addEventListener("close", () => el("cabinet").focus({ preventScroll: true }));

	el("hatch").addEventListener("click", () => {
		clearTray();
		if (!serving && !broken) {
			say(text("taken"), "", "yes");
			restAfter(2_500);
		}
	});

	el("login").addEventListener("submit", (e) => {
		e.preventDefault();
		link.password = el("password").value.trim();
		el("password").value = "";
		keep();
		link.attempts = 0;
		link.start();
		el("cabinet").scrollIntoView({ block: "nearest" });
	});

	function keep() {
		kept.set("password", el("keep").checked ? link.password : "");
	}
	el("keep").checked = kept.get("password") !== "";
	el("keep").addEventListener("change", keep);
	if (root.dataset.password) {
		delete root.dataset.password;
		history.replaceState(null, "", location.href); // loaded again, it makes no further password
		if (el("keep").checked) {
			keep();
		}
	}

	el("empty").addEventListener("click", () => {
		el("log").replaceChildren();
		lines = 0;
		count();
	});

	switchOn();
})();
