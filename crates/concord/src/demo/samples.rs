//! What the demo's agencies exchange: written for it, in the formats that such agencies use.

/// A file with its name, and the title under which it is sent.
pub(super) struct Sample {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) content: &'static str,
}

/// OASIS CAP 1.2.
pub(super) const EARTHQUAKE: Sample = Sample {
    file: "earthquake.cap",
    title: "Earthquake M 6.4 south of Almaty, strong aftershocks expected",
    content: r#"<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
  <identifier>kz-seismology-2026-1124-0017</identifier>
  <sender>duty-officer@seismology.example.kz</sender>
  <sent>2026-11-24T09:41:12+05:00</sent>
  <status>Exercise</status>
  <msgType>Alert</msgType>
  <source>Concord demo</source>
  <scope>Public</scope>
  <code>concord-demo</code>
  <note>A sample: no such earthquake happened.</note>
  <info>
    <language>en</language>
    <category>Geo</category>
    <event>Earthquake</event>
    <responseType>Prepare</responseType>
    <urgency>Immediate</urgency>
    <severity>Severe</severity>
    <certainty>Observed</certainty>
    <onset>2026-11-24T09:38:47+05:00</onset>
    <headline>Magnitude 6.4 south of Almaty, depth 12 km</headline>
    <description>Felt up to intensity VII. Landslides and closed passes are possible on both sides of the border. Dams on the Chilik river are being inspected.</description>
    <instruction>Keep mountain roads free for rescue. Expect aftershocks up to magnitude 5.</instruction>
    <parameter>
      <valueName>magnitude</valueName>
      <value>6.4 Mw</value>
    </parameter>
    <parameter>
      <valueName>depth</valueName>
      <value>12 km</value>
    </parameter>
    <area>
      <areaDesc>Almaty region and northern Issyk-Kul</areaDesc>
      <circle>42.96,77.12 90.0</circle>
    </area>
  </info>
  <info>
    <language>ru</language>
    <category>Geo</category>
    <event>Землетрясение</event>
    <responseType>Prepare</responseType>
    <urgency>Immediate</urgency>
    <severity>Severe</severity>
    <certainty>Observed</certainty>
    <headline>Магнитуда 6,4 к югу от Алматы, глубина 12 км</headline>
    <instruction>Освободите горные дороги для спасателей. Ожидаются повторные толчки.</instruction>
    <area>
      <areaDesc>Алматинская область и север Иссык-Куля</areaDesc>
      <circle>42.96,77.12 90.0</circle>
    </area>
  </info>
</alert>
"#,
};

/// Seizure records, one for each row.
pub(super) const SEIZURES: Sample = Sample {
    file: "seizures.csv",
    title: "Изъятия наркотиков на восточной границе, ноябрь 2026 года",
    content: "record,date,place,latitude,longitude,substance,quantity_kg,concealment,transport,route\n\
IR-2026-11-0412,2026-11-03,Taybad,34.74,60.77,heroin,41.500,double floor of a trailer,lorry,Herat - Taybad - Mashhad\n\
IR-2026-11-0418,2026-11-06,Zabol,31.03,61.50,opium,212.000,sacks of cement,lorry,Zaranj - Zabol - Kerman\n\
IR-2026-11-0433,2026-11-11,Sarakhs,36.54,61.16,methamphetamine,18.250,fuel tank,car,Herat - Sarakhs\n\
IR-2026-11-0440,2026-11-15,Mirjaveh,29.02,61.45,hashish,96.000,\"carpets, sewn in\",bus,Taftan - Mirjaveh - Zahedan\n\
IR-2026-11-0452,2026-11-21,Bazargan,39.39,44.38,heroin,27.800,spare wheels,lorry,Tabriz - Bazargan - Agri\n",
};

/// OASIS STIX 2.1.
pub(super) const INDICATORS: Sample = Sample {
    file: "indicators.stix",
    title: "Phishing against online banking: domains and a loader",
    content: r#"{
  "type": "bundle",
  "id": "bundle--6f0f6a1e-6b7e-4f0d-9b3f-2f8a2b7f4d10",
  "objects": [
    {
      "type": "identity",
      "spec_version": "2.1",
      "id": "identity--0d4f9f3c-2b63-4d0e-8a51-7c1f8f5f9a01",
      "created": "2026-11-24T01:00:00.000Z",
      "modified": "2026-11-24T01:00:00.000Z",
      "name": "Sample CERT of the Concord demo",
      "identity_class": "organization",
      "sectors": ["government"]
    },
    {
      "type": "indicator",
      "spec_version": "2.1",
      "id": "indicator--b2a7c1de-5d3f-4c77-9e8a-1a5b6f0c2d02",
      "created_by_ref": "identity--0d4f9f3c-2b63-4d0e-8a51-7c1f8f5f9a01",
      "created": "2026-11-24T01:04:10.000Z",
      "modified": "2026-11-24T01:04:10.000Z",
      "name": "Login page that imitates a bank",
      "indicator_types": ["malicious-activity"],
      "pattern": "[domain-name:value = 'secure-login.bank.example'] OR [ipv4-addr:value = '198.51.100.23']",
      "pattern_type": "stix",
      "valid_from": "2026-11-23T22:00:00Z"
    },
    {
      "type": "malware",
      "spec_version": "2.1",
      "id": "malware--9c3b1e77-0a4d-4be2-8f6c-3d2e1f0a5b03",
      "created_by_ref": "identity--0d4f9f3c-2b63-4d0e-8a51-7c1f8f5f9a01",
      "created": "2026-11-24T01:05:00.000Z",
      "modified": "2026-11-24T01:05:00.000Z",
      "name": "Loader in the attached document",
      "malware_types": ["downloader"],
      "is_family": false
    },
    {
      "type": "relationship",
      "spec_version": "2.1",
      "id": "relationship--4e8d2c66-7f1a-4a39-b5d0-8c7b6a5f4e04",
      "created_by_ref": "identity--0d4f9f3c-2b63-4d0e-8a51-7c1f8f5f9a01",
      "created": "2026-11-24T01:05:30.000Z",
      "modified": "2026-11-24T01:05:30.000Z",
      "relationship_type": "indicates",
      "source_ref": "indicator--b2a7c1de-5d3f-4c77-9e8a-1a5b6f0c2d02",
      "target_ref": "malware--9c3b1e77-0a4d-4be2-8f6c-3d2e1f0a5b03"
    }
  ]
}
"#,
};

/// What comes last, to everybody.
pub(super) const BULLETIN: Sample = Sample {
    file: "bulletin.txt",
    title: "Daily bulletin: joint exercise on early warning",
    content: "Daily bulletin, 24 November 2026\n\n\
1. The joint exercise on early warning takes place on 8 December. Observers are welcome.\n\
2. The list of duty officers for the winter months is due on 1 December.\n\
3. Thanks to all who answered this morning's exercise alert within ten minutes.\n",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_json_and_its_references_lead_somewhere() {
        let bundle: serde_json::Value = serde_json::from_str(INDICATORS.content).unwrap();
        let objects = bundle["objects"].as_array().unwrap();
        let ids: Vec<_> = objects.iter().map(|object| object["id"].as_str().unwrap()).collect();
        for object in objects {
            for (key, value) in object.as_object().unwrap() {
                assert!(!key.ends_with("_ref") || ids.contains(&value.as_str().unwrap()), "{key}: {value}");
            }
        }
    }

    #[test]
    fn every_record_has_every_column() {
        let fields = |line: &str| {
            let mut quoted = false;
            1 + line
                .chars()
                .filter(|c| {
                    quoted ^= *c == '"';
                    *c == ',' && !quoted
                })
                .count()
        };
        let mut lines = SEIZURES.content.lines();
        let columns = fields(lines.next().unwrap());
        assert_eq!(lines.map(fields).collect::<Vec<_>>(), [columns; 5]);
    }

    #[test]
    fn every_element_of_the_alert_is_closed() {
        let text = EARTHQUAKE.content;
        let mut open = Vec::new();
        for tag in text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.starts_with('?') {
                open.push(tag.split(' ').next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
